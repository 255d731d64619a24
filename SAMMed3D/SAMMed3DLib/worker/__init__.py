"""What the application talks to: one worker thread, its requests, and the engine behind them. Imports no PyTorch."""
