"""Modules, their functional forms, initialisation."""
