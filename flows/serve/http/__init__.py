"""What every request passes through: request ids, the access log, the bearer token, errors as problem+json."""
