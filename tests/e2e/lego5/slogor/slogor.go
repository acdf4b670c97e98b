// Package slogor writes what lego logs without colors, with the part of the interface that lego uses.
package slogor

import (
	"io"
	"log/slog"
)

type OptionFn func(*slog.HandlerOptions)

func SetLevel(level slog.Leveler) OptionFn {
	return func(options *slog.HandlerOptions) { options.Level = level }
}

func SetTimeFormat(string) OptionFn { return func(*slog.HandlerOptions) {} }

func DisableColor() OptionFn { return func(*slog.HandlerOptions) {} }

func NewHandler(out io.Writer, options ...OptionFn) slog.Handler {
	handler := new(slog.HandlerOptions)
	for _, set := range options {
		set(handler)
	}
	return slog.NewTextHandler(out, handler)
}
