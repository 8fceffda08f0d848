"""English text to audio: the text frontend, the acoustic model, and their use with a vocoder."""
