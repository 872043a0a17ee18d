"""Configuration of the reference application: YAML files in this folder, keys in the environment."""

from config.settings import AgentSettings, ApplicationSettings, ProviderChoice, Role, load_settings

__all__ = ["AgentSettings", "ApplicationSettings", "ProviderChoice", "Role", "load_settings"]
