"""What both training scripts need and what has nothing to do with sampling: models, images, arguments, checkpoints.

Apart, so that each script holds what one would have to understand, and little else.
"""
