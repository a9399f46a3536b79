"""The whole way on generated photos: `fgdeploy demo`."""

EPOCHS = 20  # passes over the training photos, by default
