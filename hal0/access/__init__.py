"""Who may ask hal0 for what: tokens and roles. Knows neither the web nor what is asked for."""
