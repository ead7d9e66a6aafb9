"""Language models that play: problems told in words, and decoders that read them and answer with an arm."""
