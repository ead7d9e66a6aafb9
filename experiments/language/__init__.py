"""Language policies: the toy is pretrained, and what the language part claims is measured."""
