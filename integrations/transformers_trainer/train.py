"""Train a small byte-level language model with Hugging Face's Trainer, drawing more from the sources it does worst on.

The texts come from a JSON Lines file, `--data texts.jsonl`, with a "text" and a "source" in every line. `--smoke` makes
texts and takes less than a minute on one core, offline. README.md shows the difference to an ordinary script.
"""

import argparse
import json
import random
from pathlib import Path

import torch
from torch.nn.functional import cross_entropy
from transformers import GPT2Config, GPT2LMHeadModel, TrainingArguments, set_seed

import aria_sampling as aria
from aria_sampling.integrations.transformers import AriaTrainer
from aria_sampling.torch import WithIndex

BLOCK, PAD = 64, 256  # bytes read of each text; the token after the 256 bytes


class LanguageTrainer(AriaTrainer):
    """Next-byte prediction; the loss is the mean over the bytes of each text."""

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        """Return one loss a text."""
        tokens = inputs["input_ids"]
        logits = model(input_ids=tokens, attention_mask=inputs["attention_mask"]).logits
        losses = cross_entropy(logits[:, :-1].mT, tokens[:, 1:], reduction="none")
        mask = inputs["attention_mask"][:, 1:]
        loss = (losses * mask).sum(dim=1) / mask.sum(dim=1)
        return loss


def tokenize(text):
    """Return the sample of a text."""
    tokens = torch.full((BLOCK,), PAD)
    given = list(text.encode())[:BLOCK]
    tokens[: len(given)] = torch.tensor(given)
    return {"input_ids": tokens, "attention_mask": (tokens != PAD).long()}


def read(path):
    """Return the texts of a file of JSON Lines and their sources."""
    with open(path, encoding="utf-8-sig", newline="\n") as file:  # a text may have other line separators
        lines = [json.loads(line) for line in file]
    return [line["text"] for line in lines], [line["source"] for line in lines]


def made_up():
    """Return 1200 texts of three sources, most of them of the easiest one."""
    rng = random.Random(0)
    texts, sources = [], []
    for number in range(1200):
        if number % 10 < 7:
            source, text = "counting", " ".join(str(rng.randrange(9) + step) for step in range(20))
        elif number % 10 < 9:
            source, text = "spelling", "-".join(rng.choice(["alpha", "beta", "gamma", "delta"]) for _ in range(11))
        else:
            source, text = "mirrors", (half := "".join(rng.choices("abcdefgh", k=30))) + "|" + half[::-1]
        texts.append(text)
        sources.append(source)
    return texts, sources


def parse():
    """Return the arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help='JSON Lines with "text" and "source"')
    parser.add_argument("--smoke", action="store_true", help="made-up texts, 60 steps, saved and resumed once")
    parser.add_argument("--output_dir", default="runs/transformers_trainer")
    parser.add_argument("--max_steps", type=int, default=2000)
    parser.add_argument("--batch_size", type=int, default=32, help="on each device")
    parser.add_argument("--policy", choices=["aria", "uniform"], default="aria", help="uniform: the control")
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint in --output_dir")
    arguments = parser.parse_args()
    if not arguments.smoke and arguments.data is None:
        parser.error("give --data texts.jsonl, or --smoke")
    if arguments.smoke:
        arguments.max_steps, arguments.batch_size = 60, 16
    return arguments


def build(arguments):
    """Return the trainer."""
    set_seed(0)
    texts, sources = read(arguments.data) if arguments.data else made_up()
    dataset = [tokenize(text) for text in texts]
    width, layers = (64, 2) if arguments.smoke else (256, 6)
    shape = {"n_positions": BLOCK, "n_embd": width, "n_layer": layers, "n_head": 4}
    model = GPT2LMHeadModel(GPT2Config(vocab_size=PAD + 1, bos_token_id=PAD, eos_token_id=PAD, **shape))
    args = TrainingArguments(
        output_dir=arguments.output_dir,
        max_steps=arguments.max_steps,
        per_device_train_batch_size=arguments.batch_size,
        learning_rate=3e-3 if arguments.smoke else 5e-4,
        logging_steps=arguments.max_steps // 6,
        save_steps=arguments.max_steps // 3,
        report_to="tensorboard",
        disable_tqdm=True,
        use_cpu=arguments.smoke,
        remove_unused_columns=False,
    )
    pool = aria.Partition.from_labels(sources)
    allocator = aria.Allocator(pool, target="uniform", seed=0)
    if arguments.policy == "uniform":
        allocator = aria.Allocator(pool, policy=aria.UniformPolicy(), seed=0)
    return LanguageTrainer(model, args, train_dataset=WithIndex(dataset), allocator=allocator)


def main():
    """Train, and print the loss and the share of each region."""
    arguments = parse()
    trainer = build(arguments)
    trainer.train(resume_from_checkpoint=arguments.resume)
    allocator = trainer.allocator
    trainer.sampler.synchronize()
    print(f"\n{'source':12} {'texts':>6} {'loss':>6} {'share':>6}")
    losses, shares = allocator.estimate().mean, allocator.probabilities
    for row in zip(allocator.partition.names, allocator.partition.sizes, losses, shares, strict=True):
        print("{:12} {:6} {:6.3f} {:6.2f}".format(*row))
    if arguments.smoke:
        again = build(arguments)
        again.train(resume_from_checkpoint=str(Path(arguments.output_dir) / f"checkpoint-{arguments.max_steps // 3}"))
        again.sampler.synchronize()
        same = all(map(torch.equal, trainer.model.state_dict().values(), again.model.state_dict().values()))
        if not same or again.allocator.digest() != allocator.digest():
            raise SystemExit("the resumed run differs from the whole one")
        print("resumed a third of the way: the same parameters and the same allocation, bit for bit")


if __name__ == "__main__":
    main()
