"""Token ids and text: the tokenizer and the languages."""
