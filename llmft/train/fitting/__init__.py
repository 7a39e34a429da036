"""What fits: memory and time of a step, predicted from the model's configuration alone, and the settings to choose."""
