"""The paper's tables on another language."""
