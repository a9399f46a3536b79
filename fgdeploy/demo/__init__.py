"""The whole way on generated photos: `fgdeploy demo`."""
