"""From a folder of images to a token store: views, the plan, and the pass by one process, by several, or by Ray."""
