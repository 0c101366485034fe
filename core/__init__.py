"""Vocabulary of Rollmark: result types, stored records, geometry, images, settings. No torch."""
