// What both units see: inline functions and templates that end in COMDAT groups of both.
#pragma once
#include <iostream>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

struct Noisy {
    const char *name;
    explicit Noisy(const char *n) : name(n) { std::cout << "+" << name << std::endl; }
    ~Noisy() { std::cout << "-" << name << std::endl; }
};

struct Failure : std::runtime_error {
    int code;
    Failure(const std::string &what, int c) : std::runtime_error(what), code(c) {}
};

struct Counter {
    int total = 100;
    void add(int n) { total += n; }
    ~Counter() { std::cout << "counter " << total << std::endl; }
};

struct Shape {
    virtual ~Shape() = default;
    virtual int area() const = 0;
};

inline int shared_inline()
{
    static int calls = 0;
    return ++calls;
}

int other_unit(const std::vector<int> &values, std::size_t at);
void rethrow();
std::unique_ptr<Shape> shape(int size);
