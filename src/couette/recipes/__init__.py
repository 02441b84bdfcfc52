"""Whole runs as plain Python functions: data, corruption, network, objective, training.

A recipe is one function that returns a `RunConfig`, decorated with `@RECIPES.register("name")`, in
a file imported here.
"""

from couette.recipes.autoencoder import autoencoder
from couette.recipes.berkeley import berkeley_class, berkeley_time, denoiser
from couette.recipes.classifier import classifier
from couette.recipes.clip import clip
from couette.recipes.course import course_basic, course_unet, ddpm
from couette.recipes.default import default, digits, points
from couette.recipes.fitting import fit
from couette.recipes.session import Drawn, Event, Note, Saved, Session
from couette.recipes.stages import Began, Staged
from couette.recipes.states import absorbing, multinomial
from couette.recipes.text import text_to_image, text_to_pixels
from couette.registry import RECIPES

__all__ = [
    "RECIPES",
    "Began",
    "Drawn",
    "Event",
    "Note",
    "Saved",
    "Session",
    "Staged",
    "absorbing",
    "autoencoder",
    "berkeley_class",
    "berkeley_time",
    "classifier",
    "clip",
    "course_basic",
    "course_unet",
    "ddpm",
    "default",
    "denoiser",
    "digits",
    "fit",
    "multinomial",
    "points",
    "text_to_image",
    "text_to_pixels",
]
