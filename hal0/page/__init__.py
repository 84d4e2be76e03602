"""The operator's page: what rows look like in a browser. Knows neither HTTP nor who asks."""
