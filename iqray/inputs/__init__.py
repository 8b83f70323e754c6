"""From a dataset's files to one manifest row per image, and to pixels."""
