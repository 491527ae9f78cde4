"""What making a pool costs: fitting, assigning, naming, labels, files; against other k-means, in one run."""
