"""Helpers around modules (`torch.nn.utils`)."""
