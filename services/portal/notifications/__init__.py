"""Notifications: what people asked to be told, by signed webhook or by e-mail, at least once and not for ever."""
