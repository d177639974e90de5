"""Open University Learning Analytics: from registration to completion, as events."""
