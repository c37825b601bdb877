"""Ray clusters for the search: look at one, later start and use one. Imports `infosam` and `tune`, never back."""
