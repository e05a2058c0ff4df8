"""Networks of Keras that tests and benchmarks export; Keras is imported when one is made."""

from __future__ import annotations

from typing import Any


def keras_cnn() -> Any:
    import keras

    layers = keras.layers
    inputs = keras.Input((16, 16, 3), name="images")
    x = layers.Conv2D(16, 3, padding="same", use_bias=False)(inputs)
    x = layers.ReLU()(layers.BatchNormalization()(x))
    y = layers.Conv2D(16, 3, padding="same", use_bias=False)(x)
    x = layers.ReLU()(layers.Add()([layers.BatchNormalization()(y), x]))
    x = layers.DepthwiseConv2D(3, strides=2, padding="same")(x)
    x = layers.Conv2D(32, 1, activation="relu")(x)
    return keras.Model(inputs, layers.Dense(10)(layers.GlobalAveragePooling2D()(x)))


def keras_lstm() -> Any:
    import keras

    layers = keras.layers
    inputs = keras.Input((12,), dtype="int32", name="ids")
    x = layers.Embedding(50, 16)(inputs)
    x = layers.LSTM(24, return_sequences=True)(x)
    x = layers.Bidirectional(layers.LSTM(24))(x)
    return keras.Model(inputs, layers.Dense(5)(x))


def keras_gru() -> Any:
    import keras

    layers = keras.layers
    return keras.Sequential([keras.Input((12, 8), name="steps"), layers.GRU(24), layers.Dense(5)])


def keras_transformer() -> Any:
    import keras

    layers = keras.layers
    inputs = keras.Input((12,), dtype="int32", name="ids")
    x = layers.Embedding(50, 32)(inputs)
    for _ in range(2):
        y = layers.LayerNormalization()(x)
        x = layers.Add()([x, layers.MultiHeadAttention(4, 8)(y, y)])
        y = layers.Dense(64, activation="gelu")(layers.LayerNormalization()(x))
        x = layers.Add()([x, layers.Dense(32)(y)])
    return keras.Model(inputs, layers.Dense(5)(layers.GlobalAveragePooling1D()(x)))


def keras_mlp() -> Any:
    import keras

    layers = keras.layers
    return keras.Sequential(
        [keras.Input((8,), name="x"), layers.Dense(32, activation="relu"), layers.Dropout(0.5), layers.Dense(4)]
    )


KERAS = {
    "mlp": keras_mlp,
    "CNN": keras_cnn,
    "LSTM": keras_lstm,
    "GRU": keras_gru,
    "transformer": keras_transformer,
}
