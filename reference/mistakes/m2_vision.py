"""Mistakes in a framework that milestone 2 must notice, whatever the katas' own suites let through."""

import numpy as np

from dojo.mistakes import caught_by


def forward_of(module, name, forward):
    """Put another forward pass under an op of a module, and keep its gradient."""
    getattr(module, name).forward = forward


@caught_by(1, kata="07")
def batch_norm_uses_the_batch_while_the_network_is_used(m):
    right = m.batch_norm.forward

    def batch_norm(x, weight, bias, *, training=True, **options):
        return right(x, weight, bias, **{**options, "training": True, "running_mean": None})

    forward_of(m, "batch_norm", batch_norm)


@caught_by(1, kata="07")
def batch_norm_never_moves_its_running_numbers(m):
    right = m.batch_norm.forward

    def batch_norm(x, weight, bias, *, running_mean=None, running_var=None, **options):
        copies = (None if a is None else a.copy() for a in (running_mean, running_var))
        mean, var = copies
        return right(x, weight, bias, running_mean=mean, running_var=var, **options)

    forward_of(m, "batch_norm", batch_norm)


@caught_by(1, kata="07")
def batch_norm_takes_the_wrong_end_of_its_momentum(m):
    right = m.batch_norm.forward

    def batch_norm(x, weight, bias, *, momentum=0.1, **options):
        return right(x, weight, bias, momentum=1 - momentum, **options)

    forward_of(m, "batch_norm", batch_norm)


@caught_by(1, kata="07")
def convolution_turns_its_kernels_round(m):
    right = m.conv2d.forward

    def conv2d(x, weight, bias=None, **options):
        return right(x, weight[:, :, ::-1, ::-1], bias, **options)

    forward_of(m, "conv2d", conv2d)


@caught_by(1, kata="07")
def convolution_gives_kernels_the_mean_of_their_gradients(m):
    right = m.conv2d.pull

    def conv2d_back(grad, x, weight, bias, stride, padding, dilation, groups, needs_input_grad):
        to_x, to_weight, to_bias = right(
            grad, x, weight, bias, stride, padding, dilation, groups, needs_input_grad
        )
        return to_x, None if to_weight is None else to_weight / len(x), to_bias

    m.conv2d.gradient(conv2d_back)


@caught_by(1, kata="07")
def pooling_takes_the_mean(m):
    right = m.avg_pool2d.forward
    forward_of(m, "max_pool2d", lambda x, **options: right(x, **options))


@caught_by(1, kata="08")
def the_optimizer_forgets_its_momentum(m):
    right = m.Adam.update

    def update(self, data, grad, state, group):
        if "exp_avg" in state:
            state["exp_avg"][...] = 0
        right(self, data, grad, state, group)

    m.Adam.update = update


@caught_by(1, kata="08")
def the_optimizer_does_not_correct_for_the_start(m):
    right = m.Adam.update

    def update(self, data, grad, state, group):
        state["step"] = 10_000
        right(self, data, grad, state, group)

    m.Adam.update = update


@caught_by(1, kata="08")
def decay_is_not_scaled_by_the_learning_rate(m):
    def decay(self, data, grad, group):
        data *= 1 - 0.01 * group["weight_decay"]
        return grad

    m.AdamW.decay = decay


@caught_by(1, kata="08")
def the_optimizer_steps_on_the_first_group_only(m):
    right = m.Optimizer.step

    def step(self):
        groups = self.param_groups
        self.param_groups = groups[:1]
        right(self)
        self.param_groups = groups

    m.Optimizer.step = step


@caught_by(1, kata="08")
def the_schedule_never_falls(m):
    right = m.OneCycleLR.between

    def between(self, epoch, start, peak, end):
        return right(self, min(epoch, int(self.pct_start * self.total_steps) - 1), start, peak, end)

    m.OneCycleLR.between = between


@caught_by(1, kata="09")
def labels_are_shuffled_apart_from_their_images(m):
    right = m.DataLoader.__iter__

    def batches(self):
        for images, labels in right(self):
            yield images, labels[::-1].copy()

    m.DataLoader.__iter__ = batches


@caught_by(1, kata="09")
def cifar_images_are_transposed(m):
    right = m.CIFAR10.__getitem__

    def sample(self, index):
        image, label = right(self, index)
        return image.swapaxes(-1, -2), label

    m.CIFAR10.__getitem__ = sample


@caught_by(1, kata="09")
def cifar_reads_colours_last(m):
    right = m.CIFAR10.__getitem__

    def sample(self, index):
        image, label = right(self, index)
        return np.moveaxis(np.ascontiguousarray(image).reshape(32, 32, 3), -1, 0), label

    m.CIFAR10.__getitem__ = sample


@caught_by(1, kata="09")
def every_epoch_has_the_same_order(m):
    m.RandomSampler.__iter__ = lambda self: iter(range(len(self)))


@caught_by(1, kata="09")
def flips_exchange_top_and_bottom(m):
    def flip(self, images):
        out = images.copy()
        chosen = self.rng.random(len(images)) < self.p
        out[chosen] = images[chosen, ..., ::-1, :]
        return out

    m.RandomHorizontalFlip.__call__ = flip


@caught_by(1, kata="10")
def cross_entropy_adds_up_the_batch(m):
    right = m.cross_entropy.forward

    def cross_entropy(logits, labels, *, reduction="mean", **options):
        return right(logits, labels, reduction="sum", **options)

    forward_of(m, "cross_entropy", cross_entropy)


@caught_by(1, kata="10")
def cross_entropy_smooths_nothing(m):
    right = m.cross_entropy.forward

    def cross_entropy(logits, labels, *, label_smoothing=0.0, **options):
        return right(logits, labels, **options)

    forward_of(m, "cross_entropy", cross_entropy)


@caught_by(1, kata="10")
def cross_entropy_pulls_the_wrong_way(m):
    right = m.cross_entropy.pull

    def cross_entropy_back(grad, labels, probabilities, label_smoothing, reduction):
        back, _ = right(grad, labels, probabilities, label_smoothing, reduction)
        return -back, None

    m.cross_entropy.gradient(cross_entropy_back)


@caught_by(1, kata="10")
def gradients_of_all_steps_add_up(m):
    right = m.Trainer.train_batch

    def train_batch(self, batches):
        forget, self.optimizer.zero_grad = self.optimizer.zero_grad, lambda: None
        right(self, batches)
        self.optimizer.zero_grad = forget

    m.Trainer.train_batch = train_batch


@caught_by(1, kata="10")
def the_confusion_matrix_is_transposed(m):
    right = m.confusion_matrix
    m.confusion_matrix = lambda predictions, labels, classes: right(labels, predictions, classes)


@caught_by(2, kata="10")
def validation_leaves_the_network_in_use(m):
    right = m.Trainer.validate

    def validate(self, loader):
        numbers = right(self, loader)
        self.model.eval()
        for p in self.model.parameters():
            p.data *= 0.9
        return numbers

    m.Trainer.validate = validate


@caught_by(3, kata="10")
def a_checkpoint_leaves_the_optimizer_out(m):
    right = m.Trainer.load_state_dict

    def load_state_dict(self, saved):
        right(self, {**saved, "optimizer": self.optimizer.state_dict()})

    m.Trainer.load_state_dict = load_state_dict


@caught_by(3, kata="09")
def a_resumed_loader_begins_its_epoch_again(m):
    right = m.DataLoader.load_state_dict
    m.DataLoader.load_state_dict = lambda self, state: right(self, {**state, "batches": 0})


@caught_by(3, kata="10")
def a_torn_checkpoint_is_the_end(m):
    m.load_checkpoint = lambda path: m.read_checkpoint(m.Path(path))
