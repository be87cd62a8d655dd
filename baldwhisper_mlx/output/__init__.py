"""Transcripts as text: txt, srt, vtt, tsv and json."""
