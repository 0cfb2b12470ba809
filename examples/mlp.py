"""A multi-layer perceptron on handwritten digits, with a DataLoader and Adam.

Run: tracemill run examples/mlp.py [--data mnist.npz] [--epochs 3]
"""

import argparse
import time

import tracemill as tm
from _progress import track
from datasets import digits
from tracemill import nn, optim
from tracemill.utils.data import DataLoader, TensorDataset

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument(
    "--data", help="an .npz with x_train, y_train, x_test, y_test (default: generated digits)"
)
parser.add_argument("--images", type=int, default=6000, help="how many digits to generate for training")
parser.add_argument("--epochs", type=int, default=3)
parser.add_argument("--batch", type=int, default=128)
args = parser.parse_args()

tm.manual_seed(0)
x_train, y_train, x_test, y_test = digits(args.data, args.images)
train = TensorDataset(tm.from_numpy(x_train), tm.from_numpy(y_train))
loader = DataLoader(train, batch_size=args.batch, shuffle=True)

model = nn.Sequential(
    nn.Flatten(), nn.Linear(784, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 10)
)
criterion = nn.CrossEntropyLoss()
optimizer = optim.Adam(model.parameters(), lr=1e-3)


def accuracy() -> float:
    model.eval()
    with tm.no_grad():
        guess = model(tm.from_numpy(x_test)).argmax(dim=1)
    model.train()
    return (guess == tm.from_numpy(y_test)).float().mean().item()


for epoch in range(args.epochs):
    start, total = time.perf_counter(), 0.0
    for x, y in track(loader, f"epoch {epoch + 1}", total=len(loader)):
        optimizer.zero_grad()
        loss = criterion(model(x), y)
        loss.backward()
        optimizer.step()
        total += loss.item() * len(y)
    seconds = time.perf_counter() - start
    print(
        f"epoch {epoch + 1}  loss {total / len(train):.4f}  test accuracy {accuracy():.2%}  {seconds:.1f} s"
    )
