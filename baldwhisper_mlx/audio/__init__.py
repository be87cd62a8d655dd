"""Audio files and samples: decoding, resampling, log-mel features, voice activity, cutting."""
