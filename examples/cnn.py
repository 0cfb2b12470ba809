"""A convolutional network on handwritten digits; the whole step is captured once by `tm.compile`.

Run: tracemill run examples/cnn.py [--data mnist.npz] [--epochs 1]
"""

import argparse
import time

import tracemill as tm
import tracemill.nn.functional as F
from _progress import track
from datasets import digits
from tracemill import nn, optim
from tracemill.utils.data import DataLoader, TensorDataset

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument(
    "--data", help="an .npz with x_train, y_train, x_test, y_test (default: generated digits)"
)
parser.add_argument("--images", type=int, default=6000, help="how many digits to generate for training")
parser.add_argument("--epochs", type=int, default=1)
parser.add_argument("--batch", type=int, default=64)
args = parser.parse_args()


class Net(nn.Module):
    """conv 32 – conv 64 – pool – fc 128 – fc 10."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 32, 3)
        self.conv2 = nn.Conv2d(32, 64, 3)
        self.pool = nn.MaxPool2d(2)
        self.dropout = nn.Dropout(0.25)
        self.fc1 = nn.Linear(9216, 128)
        self.fc2 = nn.Linear(128, 10)

    def forward(self, x: tm.Tensor) -> tm.Tensor:
        x = F.relu(self.conv1(x))
        x = self.pool(F.relu(self.conv2(x)))
        x = self.dropout(x.flatten(1))
        return self.fc2(F.relu(self.fc1(x)))


tm.manual_seed(0)
x_train, y_train, x_test, y_test = digits(args.data, args.images)
loader = DataLoader(
    TensorDataset(tm.from_numpy(x_train), tm.from_numpy(y_train)), batch_size=args.batch, shuffle=True
)
tests = DataLoader(TensorDataset(tm.from_numpy(x_test), tm.from_numpy(y_test)), batch_size=500)

model = Net()
optimizer = optim.Adam(model.parameters(), lr=1e-3)


@tm.compile
def step(x: tm.Tensor, y: tm.Tensor) -> tm.Tensor:
    optimizer.zero_grad()
    loss = F.cross_entropy(model(x), y)
    loss.backward()
    optimizer.step()
    return loss


def accuracy() -> float:
    model.eval()
    with tm.no_grad():
        right = sum((model(x).argmax(dim=1) == y).sum().item() for x, y in tests)
    model.train()
    return right / len(y_test)


for epoch in range(args.epochs):
    start, total = time.perf_counter(), 0.0
    for x, y in track(loader, f"epoch {epoch + 1}", total=len(loader)):
        total += step(x, y).item()
    seconds = time.perf_counter() - start
    print(
        f"epoch {epoch + 1}  loss {total / len(loader):.4f}  test accuracy {accuracy():.2%}  {seconds:.1f} s"
    )
