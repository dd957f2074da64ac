"""Does a loss that goes over all ranks have the gradients of one process on the whole batch?"""
