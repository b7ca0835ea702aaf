// The other unit.
#include "cxx.hpp"

static Noisy global("other global");

namespace {
struct Square : Shape {
    int side;
    explicit Square(int s) : side(s) {}
    int area() const override { return side * side; }
};
struct Nothing : Shape {
    int area() const override { return shared_inline() - shared_inline(); }
};
}

int other_unit(const std::vector<int> &values, std::size_t at)
{
    Noisy local("other");
    return values.at(at);
}

void rethrow()
{
    try {
        throw Failure("inner", 1);
    } catch (const Failure &failure) {
        throw std::logic_error(std::string("re") + failure.what());
    }
}

std::unique_ptr<Shape> shape(int size)
{
    if (size > 0)
        return std::make_unique<Square>(size);
    return std::make_unique<Nothing>();
}
