"""The command line, one file per command; each is one typed call from Python too."""
