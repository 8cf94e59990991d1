"""Crop detection: is a photo cropped, and which part of the original frame is it?

Source: Van Hoorick and Vondrick, "Dissecting Image Crops", ICCV 2021 (arXiv 2011.11831), and the authors' code.
Start at ``spec.py`` (what can be set), then ``system.py`` (how a batch becomes a loss and figures).
"""
