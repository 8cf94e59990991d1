"""One file a format in which a snapshot can leave: ImageFolder, Hugging Face, WebDataset."""
