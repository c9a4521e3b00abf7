"""Loads every module of messages/, so that the table of tags is whole."""

import importlib
import pkgutil

import messages


def load() -> None:
    for module in pkgutil.iter_modules(messages.__path__):
        importlib.import_module(f"messages.{module.name}")
