"""Engine: the one loop, its state, checkpoints and logs. It knows no loss, model or discriminator by name."""
