"""What both diffusers scripts share: models, images, arguments, checkpoints, regions of captions.

It is apart so that each script holds its own idea and little else.
"""
