#![doc = "Hooks."]
