"""What people write about networks, images and training: parameters shared by the image jobs.

Only checked values, no work: importing this loads neither torch nor numpy.
"""
