"""The shelf: releases, their cards, and where the app finds them."""
