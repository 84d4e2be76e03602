module hal0.bench/wire

go 1.22
