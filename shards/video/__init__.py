"""Decodes video files and folders of images to frames."""
