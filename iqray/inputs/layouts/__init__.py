"""Layouts of datasets: each module lists the images of one layout and reads their bytes."""
