"""Video files and folders of images to frames."""
