"""Linear regression, the smallest whole training step: forward, loss, backward, SGD, in a plain loop.

Run: tracemill run examples/linear_regression.py
"""

import time

import tracemill as tm
from tracemill import nn, optim

tm.manual_seed(0)
x = tm.linspace(-1, 1, 100).unsqueeze(1)
y = 2 * x + 1 + 0.1 * tm.randn(100, 1)

model = nn.Linear(1, 1)
criterion = nn.MSELoss()
optimizer = optim.SGD(model.parameters(), lr=0.01)

start = time.perf_counter()
for epoch in range(1000):
    loss = criterion(model(x), y)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if (epoch + 1) % 100 == 0:
        print(f"epoch {epoch + 1:4d}  loss {loss.item():.5f}")

with tm.no_grad():
    prediction = model(tm.tensor([[0.5]]))
print(
    f"weight {model.weight.item():.4f}  bias {model.bias.item():.4f}  f(0.5) = {prediction.numpy()[0, 0]:.4f}"
)
print(f"{time.perf_counter() - start:.2f} s for 1000 epochs; `tracemill dump` shows the step as text")
