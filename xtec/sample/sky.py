"""The air above the sample cube: haze, clouds and their shadows, from the ground to the sensor.

Top of atmosphere = path + transmission x surface, per band; then clouds are laid over it.

Below: sample.noise. Above: sample (the cube).
"""

from dataclasses import dataclass

import numpy as np

from xtec.sample.noise import Floats, fractal, key, smoothstep

# One number per band: B01 B02 B03 B04 B05 B06 B07 B08 B8A B09 B10 B11 B12.
PATH = (1050, 750, 420, 240, 190, 150, 120, 110, 90, 40, 8, 15, 8)
"""Light that never reached the ground, reflectance x 10000, on a clear day."""
TRANSMISSION = (0.72, 0.78, 0.83, 0.88, 0.88, 0.89, 0.91, 0.9, 0.93, 0.3, 0.0015, 0.93, 0.9)
SKYLIGHT = (0.55, 0.5, 0.42, 0.35, 0.33, 0.3, 0.28, 0.27, 0.25, 0.25, 0.25, 0.17, 0.13)
"""Share of the light that still comes to a place in the shadow of a cloud."""
CLOUD = (5600, 5500, 5200, 5500, 5600, 5900, 6100, 5800, 6400, 1900, 26, 4500, 3300)
CIRRUS = (1500, 1400, 1350, 1350, 1350, 1350, 1350, 1300, 1350, 950, 800, 700, 500)
"""Light from a veil of ice: high above the water vapour, hence bright in B10."""
VAPOUR_BAND = 9


@dataclass(frozen=True)
class Weather:
    """One day's sky; each number is 0 where there is nothing of it."""

    haze: float
    """Path radiance beyond a clear day's, as a share of it."""
    vapour: float
    """Share of the light in B09 that passes, against a day of middling moisture."""
    clouds: float
    """0 none to 1 overcast."""
    cirrus: float
    """0 none to 1 a closed veil."""


DAYS = (
    Weather(haze=0.0, vapour=1.3, clouds=0.0, cirrus=0.0),
    Weather(haze=0.15, vapour=1.1, clouds=0.0, cirrus=0.0),
    Weather(haze=0.05, vapour=0.8, clouds=0.36, cirrus=0.0),
    Weather(haze=0.0, vapour=0.7, clouds=0.0, cirrus=0.0),
    Weather(haze=0.1, vapour=0.6, clouds=0.55, cirrus=0.5),
    Weather(haze=0.2, vapour=0.9, clouds=0.0, cirrus=0.35),
)
"""The sky of each date, over and over."""

TO_SUN = (14.0, 9.0)
"""Rows and columns from a place to the cloud that shades it: the sun stands in the south-east."""


@dataclass(frozen=True)
class Sky:
    """The air of one day over the pixels; arrays of shape (y, x), 0 to 1."""

    weather: Weather
    cloud: Floats
    brightness: Floats
    shade: Floats
    veil: Floats

    def shaded(self, surface: Floats, band: int) -> Floats:
        """Take from the ground the light that the clouds keep off it."""
        return surface * (1 - self.shade * (1 - SKYLIGHT[band]))

    def through_the_air(self, surface: Floats, band: int) -> Floats:
        """Turn surface reflectance to top-of-atmosphere reflectance, both x 10000."""
        passed = TRANSMISSION[band] * (self.weather.vapour if band == VAPOUR_BAND else 1.0)
        return PATH[band] * (1 + self.weather.haze) + passed * surface

    def under_clouds(self, below: Floats, band: int) -> Floats:
        """Lay the cirrus veil and the clouds over what is below them."""
        veiled = below * (1 - 0.35 * self.veil) + CIRRUS[band] * self.veil
        return veiled + self.cloud * (CLOUD[band] * self.brightness - veiled)


def sky(y: Floats, x: Floats, seed: int, date: int) -> Sky:
    """Draw the sky of a date at these pixel coordinates, rows (n, 1) and columns (1, m)."""
    weather = DAYS[date % len(DAYS)]
    nothing = np.zeros(np.broadcast(y, x).shape)
    cloud = shade = brightness = veil = nothing
    if weather.clouds:
        cloud, depth = _clouds(y, x, weather.clouds, key(seed, "clouds", date))
        shade, _ = _clouds(y + TO_SUN[0], x + TO_SUN[1], weather.clouds, key(seed, "clouds", date))
        billows = fractal(y, x, 22, key(seed, "billows", date))
        brightness = 0.72 + 0.45 * depth + 0.16 * billows
    if weather.cirrus:
        fibres = fractal(y + 0.6 * x, (x - 0.6 * y) / 3, 150, key(seed, "cirrus", date))
        veil = weather.cirrus * smoothstep(-0.5, 0.9, fibres)
    return Sky(weather, cloud, brightness, shade, veil)


def _clouds(y: Floats, x: Floats, amount: float, key: int) -> tuple[Floats, Floats]:
    """Opacity 0 to 1 of the clouds, and 0 to 1 how deep in the cloud a pixel lies."""
    field = fractal(y, x, 130, key, 6)
    rim = 0.75 - 1.1 * amount
    return smoothstep(rim, rim + 0.22, field), np.clip((field - rim) / 0.9, 0, 1)
