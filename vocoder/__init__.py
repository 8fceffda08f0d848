"""flow-vocoder: from log-mel spectrograms to speech by a normalizing flow, in one parallel pass."""
