"""Training: the only package that knows mmengine's Runner."""
